import torch

from diffusers_ext.pipelines.tiles import tile_starts
from tests.pipelines.testing import assert_equal, generators
from tests.pipelines.tiny_palette import draw, make_images, make_pipeline, make_unet, note_calls


class TestTiles:
    def test_starts_cover_and_overlap(self):
        for length in range(1, 60):
            for overlap in range(8):
                starts = tile_starts(length, 8, overlap)
                ends = [start + min(8, length) for start in starts]
                assert starts[0] == 0 and ends[-1] == length
                assert all(end - start >= overlap for end, start in zip(ends[:-1], starts[1:], strict=True))

    def test_an_image_of_tile_size_is_whole(self):
        pipe = make_pipeline()
        assert_equal(draw(pipe, tile_size=8), draw(pipe))
        assert_equal(draw(pipe, tile_size=16), draw(pipe))

    def test_tiles_of_a_pointwise_network_are_the_whole(self):
        pipe = make_pipeline()
        pipe.unet.register_forward_hook(lambda unet, args, output: (args[0][:, 3:] * 0.5 - args[0][:, :3],))
        calls = note_calls(pipe)
        image = make_images(2, 20, 28)
        whole = draw(pipe, image, guidance_scale=2.0)
        calls.clear()
        tiled = draw(pipe, image, tile_size=8, tile_overlap=3, tile_batch_size=5, guidance_scale=2.0)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)
        assert max(len(sample) for sample, _ in calls) == 5
        assert all(sample.shape[2:] == (8, 8) for sample, _ in calls)

    def test_tiles_see_their_part_of_the_condition(self):
        pipe = make_pipeline()
        calls = note_calls(pipe)
        image = make_images(1, 8, 14)
        draw(pipe, image, tile_size=8, tile_overlap=2, num_inference_steps=1)
        ((sample, _),) = calls
        for tile, start in zip(sample[:, :3], (0, 6), strict=True):
            torch.testing.assert_close(tile, image[0, :, :, start : start + 8] * 2 - 1)

    def test_with_classes_masks_and_batches(self):
        pipe = make_pipeline(unet=make_unet(num_class_embeds=3))
        image = make_images(2, 13, 21)
        inputs = {"mask_image": (0, 0, 11, 13), "tile_size": 8}
        together = draw(pipe, image, class_labels=[0, 2], generator=generators([1, 2]), **inputs)
        alone = draw(pipe, image[1:], class_labels=2, generator=generators([2]), tile_batch_size=1, **inputs)
        torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-5)
        assert_equal(together[..., 11:], image[..., 11:])
