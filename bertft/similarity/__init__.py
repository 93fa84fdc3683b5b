"""How alike two spaces are: RSA, CKA, CCA and relatives, streamed and exact, with intervals."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
