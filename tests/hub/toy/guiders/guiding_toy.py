from diffusers import ClassifierFreeGuidance


class ToyGuidance(ClassifierFreeGuidance):
    pass
