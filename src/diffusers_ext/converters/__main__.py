"""Convert a published checkpoint to a folder for `from_pretrained`."""

import argparse
import ast
import json
import sys
import textwrap

from diffusers_ext.converters.listing import described_families


COMMAND = "python -m diffusers_ext.converters"


def build_parser() -> argparse.ArgumentParser:
    known = described_families()
    with_classes = ", ".join(name for name, family in known.items() if "id2label" in family.options)
    parser = argparse.ArgumentParser(
        COMMAND,
        description=__doc__,
        epilog="families:\n\n" + "\n\n".join(map(describe, known.values())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file", help="the checkpoint: a file of torch.save or safetensors, or for some families the folder of a run"
    )
    parser.add_argument("output_dir", help="the folder to write, which must not exist or must be empty")
    parser.add_argument("--family", required=True, choices=known, help="where the checkpoint comes from; see below")
    parser.add_argument("--preset", help="the name of the published checkpoint or of its configuration")
    parser.add_argument(
        "--option",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="arguments of the original's network and process that no tensor shows, such as num_heads=4",
    )
    parser.add_argument(
        "--id2label",
        metavar="FILE",
        help=f'a JSON file of class names, {{"0": "tench", ...}}, for the families {with_classes}',
    )
    return parser


def describe(family) -> str:
    """A paragraph of the help text about a [`~diffusers_ext.converters.family.Family`]."""
    options = ", ".join(name for name in family.options if name != "id2label")
    lines = textwrap.wrap(family.description, 112)
    lines += textwrap.wrap(f"options: {options or 'none'}", 112, subsequent_indent="  ")
    if family.presets:
        lines += textwrap.wrap(f"presets: {', '.join(family.presets)}", 112, subsequent_indent="  ")
    lines.append(f"{COMMAND} --family {family.name} {family.example}")
    return f"  {family.name}\n" + textwrap.indent("\n".join(lines), "    ")


def parse_option(text: str) -> tuple[str, object]:
    """`name=value`, where the value is a number, `true`, `false`, `none`, a list as `1,2,4`, or otherwise a word."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"An option must be NAME=VALUE, but is {text!r}.")
    try:
        return name, ast.literal_eval(value.title() if value.lower() in ("true", "false", "none") else value)
    except (ValueError, SyntaxError):
        return name, value


def read_id2label(path: str) -> dict[str, str]:
    with open(path, encoding="utf-8") as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is not a JSON file ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} must hold the names of the classes by their ids, as {{"0": "tench"}}.')
    return content


def main(arguments: list[str] | None = None) -> None:
    args = build_parser().parse_args(arguments)
    # Not before: the help needs no networks.
    from diffusers_ext.converters.checkpoint_to_folder import convert_checkpoint

    try:
        options = dict(map(parse_option, args.option))
        id2label = None if args.id2label is None else read_id2label(args.id2label)
        written = convert_checkpoint(args.file, args.output_dir, args.family, args.preset, id2label, **options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"Wrote {written}.")


if __name__ == "__main__":
    main()
