from .layer_names import kohya_layers as kohya_layers, text_encoder_key as text_encoder_key
from .lora_files import convert_lora_file as convert_lora_file, read_lora_file as read_lora_file
from .lora_tensors import from_kohya as from_kohya, is_kohya as is_kohya, to_kohya as to_kohya
