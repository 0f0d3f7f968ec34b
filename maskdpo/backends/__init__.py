"""Text generation behind one interface (``base.Backend``), for ``sample`` and for judges that ask a model.

To add a backend: a class in its own module, and a line in ``BACKENDS``.
"""

from typing import Any

from maskdpo import registry
from maskdpo.backends.base import Backend
from maskdpo.backends.settings import BackendSettings
from maskdpo.chat import check_options

BACKENDS: registry.Registry[Any] = registry.Registry(
    "backend",
    {
        "transformers": "maskdpo.backends.transformers_backend:TransformersBackend",
        "vllm": "maskdpo.backends.vllm_backend:VLLMBackend",
        "openai": "maskdpo.backends.openai_backend:OpenAIBackend",
    },
    group="maskdpo.backends",
)
"""A backend's factory may ask for ``model`` (a name), ``settings`` (``BackendSettings``) and ``options`` of its own."""


def make_backend(model: str, settings: BackendSettings) -> Backend:
    """The backend that the settings name, in this process or in workers; models are loaded at the first request."""
    if settings.template_options:
        check_options(settings.template_options)
    if settings.workers is not None:
        from maskdpo.backends.spread import SpreadBackend

        return SpreadBackend(model, settings)
    factory = BACKENDS[settings.backend]
    made: Backend = registry.make(
        "backend", settings.backend, factory, settings.backend_options, model=model, settings=settings
    )
    return made
