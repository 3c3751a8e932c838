import torch

from diffusers_ext.losses import mode_seeking_loss, mutual_information_loss


def test_each_pair_has_the_inverse_of_its_distance_ratio():
    images = torch.zeros(2, 1, 4, 4), torch.stack([torch.full((1, 4, 4), 0.5), torch.zeros(1, 4, 4)])
    latents = torch.zeros(2, 3), torch.tensor([[0.0, 3.0, 0.0], [2.0, 2.0, 2.0]])
    loss = mode_seeking_loss(images, latents)
    torch.testing.assert_close(loss, torch.tensor([1 / (0.5 + 1e-5), 1e5]))


def test_images_are_driven_apart():
    images = (torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.1, requires_grad=True))
    mode_seeking_loss(images, (torch.zeros(1, 2), torch.ones(1, 2))).sum().backward()
    assert (images[1].grad < 0).all()


def test_codes_are_read_as_a_category_and_as_numbers():
    code = torch.tensor([[0.0, 1.0, 0.0, 0.5, -0.5], [1.0, 0.0, 0.0, 0.0, 1.0]])
    prediction = torch.tensor([[0.0, 2.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0, 1.0]])
    loss = mutual_information_loss(prediction, code, num_categories=3)
    cross_entropy = -torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]).log_softmax(1)[[0, 1], [1, 0]]
    torch.testing.assert_close(loss, cross_entropy + torch.tensor([0.5, 0.0]))
    continuous = mutual_information_loss(prediction[:, 3:], code[:, 3:], num_categories=0)
    torch.testing.assert_close(continuous, torch.tensor([0.5, 0.0]))
