from .page import build_demo as build_demo
from .server import serve_demo as serve_demo
from .space import write_space as write_space
