"""Pure tensor functions: they import torch (and triton, cv2 or kornia inside functions), never ComfyUI."""
