"""Likelihoods of images under diffusion and flow models, in bits per dimension: the variational bound, and the ODE.

An image has C*H*W dimensions of 256 levels; level k is 2k/255 - 1 in [-1, 1], and a model that knows nothing about
images needs 8 bits per dimension. Both measures give level k the probability of the same cell, from 1/255 below it to
1/255 above, so their values can be compared. The random numbers of an image depend only on the seed and on its index
in the data set, not on the batch size or the number of processes.
"""

from diffusers_ext.likelihoods.dataset_likelihood import LIKELIHOODS as LIKELIHOODS, likelihood_rows as likelihood_rows
from diffusers_ext.likelihoods.dequantized_likelihood import (
    dequantized_likelihood_row as dequantized_likelihood_row,
)
from diffusers_ext.likelihoods.exact_likelihood import exact_likelihood_row as exact_likelihood_row
from diffusers_ext.likelihoods.ode_likelihood import (
    ODELikelihood as ODELikelihood,
    ode_bits_per_dim as ode_bits_per_dim,
)
from diffusers_ext.likelihoods.variational_bound import (
    VariationalBound as VariationalBound,
    discrete_process as discrete_process,
    vlb_bits_per_dim as vlb_bits_per_dim,
)
