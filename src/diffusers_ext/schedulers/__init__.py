from diffusers_ext.registration import register


register()
