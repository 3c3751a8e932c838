import pytest
import torch

from diffusers_ext.metrics import PatchPixels, frechet_distance, shuffle_patches, single_image_fid


def image(seed=0, height=20, width=24):
    noise = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (height, width), mode="bilinear")[0] * 2 - 1


def test_it_is_the_distance_of_all_patches():
    real, other = image(), image(1)
    patches = [
        torch.stack(
            [(i * 127.5 + 127.5).round()[:, y : y + 7, x : x + 7].flatten() for y in range(14) for x in range(18)]
        )
        for i in (real, other)
    ]
    moments = [m for p in patches for m in ((p / 127.5 - 1).double().mean(0), torch.cov((p / 127.5 - 1).double().T))]
    found = single_image_fid(real, other[None])
    torch.testing.assert_close(found.item(), frechet_distance(*moments), rtol=1e-4, atol=1e-4)


def test_an_image_is_nearest_to_itself():
    real = image(height=40, width=48)
    shuffled = shuffle_patches(real, 8, torch.Generator().manual_seed(0))
    same, mirrored, mixed = single_image_fid(real, torch.stack([real, real.flip(2), shuffled]))
    assert abs(same) < 1e-6 < mirrored < mixed
    assert single_image_fid(real, image(height=60, width=30)[None]).shape == (1,)


def test_any_features_can_be_compared():
    def colors(images):
        return images

    real = image(height=40, width=48)
    shuffled = shuffle_patches(real, 8, torch.Generator().manual_seed(0))
    assert single_image_fid(real, shuffled[None], colors).item() < 1e-6  # the same pixels elsewhere


def test_shuffled_patches_are_those_of_the_image():
    numbers = torch.arange(11 * 9, dtype=torch.uint8).view(1, 11, 9)
    shuffled = shuffle_patches(numbers, 4, torch.Generator().manual_seed(3))
    assert shuffled.dtype == torch.uint8 and torch.equal(shuffled[:, 8:], numbers[:, 8:])
    assert torch.equal(shuffled[..., 8:], numbers[..., 8:])
    squares = {
        tuple(i[0, y : y + 4, x : x + 4].flatten().tolist())
        for i in (numbers, shuffled)
        for y in (0, 4)
        for x in (0, 4)
    }
    assert len(squares) == 4 and not torch.equal(shuffled, numbers)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="SIFID compares an image"):
        single_image_fid(image()[None], image()[None])
    with pytest.raises(ValueError, match="needs larger images"):
        single_image_fid(image()[:, :7], image()[None])
    assert PatchPixels(5).name == "pixels of 5x5 patches"
