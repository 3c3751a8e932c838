from diffusers_ext.hub.card import write_model_card
from diffusers_ext.hub.publishing import PublishableMixin, publish_folder


__all__ = ["PublishableMixin", "publish_folder", "write_model_card"]
