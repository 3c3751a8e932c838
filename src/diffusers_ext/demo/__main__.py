"""Open a page in the browser where a pipeline makes pictures, or write a Hugging Face Space with this page."""

import argparse
import sys


COMMAND = "python -m diffusers_ext.demo"
DTYPES = ("float32", "float16", "bfloat16")


# Nothing heavy is imported before the arguments are read, so that --help and mistakes are answered at once.
def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(COMMAND, description=__doc__)
    parser.add_argument("pipeline", help="a folder, such as outputs/digits, or a repository of the Hub")
    parser.add_argument("--title", help="the heading of the page; by default the name of the pipeline")
    parser.add_argument("--device", help="where the pipeline runs, such as cuda:1; by default a GPU if there is one")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="the precision (default: %(default)s)")
    server = parser.add_argument_group("server")
    server.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen at: 0.0.0.0 shows the page to your network (default: %(default)s)",
    )
    server.add_argument("--port", type=int, help="by default the first free one from 7860 on")
    limits = parser.add_argument_group("limits of one visit")
    limits.add_argument("--max_images", type=int, default=64, help="pictures of one click (default: %(default)s)")
    limits.add_argument(
        "--max_side", type=int, default=1024, help="the longer side of pictures, in pixels (default: %(default)s)"
    )
    limits.add_argument(
        "--max_image_pixels",
        type=int,
        default=50_000_000,
        help="pixels of an upload, which is refused beyond them (default: %(default)s)",
    )
    limits.add_argument(
        "--max_file_size", type=int, default=20_000_000, help="bytes of an upload (default: %(default)s)"
    )
    space = parser.add_argument_group("Hugging Face Space")
    space.add_argument("--space", metavar="DIR", help="write the Space to this new folder, and serve nothing")
    space.add_argument("--push_to_hub", metavar="NAME", help="publish the Space, such as user/digits-demo")
    space.add_argument("--private", action="store_true", help="only you can see the published Space")
    return parser


def main(arguments: list[str] | None = None) -> None:
    parser = build_parser()
    options = parser.parse_args(arguments)
    for name in ("max_images", "max_side", "max_image_pixels", "max_file_size"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, but is {getattr(options, name)}")
    if options.private and not options.push_to_hub:
        parser.error("--private is for --push_to_hub")
    try:
        publish(options) if options.space or options.push_to_hub else serve(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def publish(options: argparse.Namespace) -> None:
    from diffusers_ext.demo.space import publish_space, write_space

    if options.space:
        print(f"Wrote {write_space(options.pipeline, options.space, title=options.title)}.")
    if options.push_to_hub:
        address = publish_space(
            options.pipeline, options.push_to_hub, title=options.title, private=options.private or None
        )
        print(f"Published {address}.")


def serve(options: argparse.Namespace) -> None:
    from diffusers_ext.demo.gradio_module import import_gradio

    import_gradio()  # before the pipeline, so that its absence is said at once
    from diffusers_ext.demo.loading import load_pipeline, name_of
    from diffusers_ext.demo.panel import Limits
    from diffusers_ext.demo.server import serve_demo

    pipeline = load_pipeline(options.pipeline, options.device, options.dtype)
    limits = Limits(options.max_images, options.max_side, options.max_image_pixels, options.max_file_size)
    serve_demo(pipeline, options.title or name_of(options.pipeline), options.host, options.port, limits)


if __name__ == "__main__":
    main()
