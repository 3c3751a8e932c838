"""What a published repository contains, how it is written, and how it is loaded."""

from diffusers_ext.hub.card import write_model_card as write_model_card
from diffusers_ext.hub.publishing import PublishableMixin as PublishableMixin, publish_folder as publish_folder
