"""Arguments of S3PRL's datapipes that are not one of ours by another name: what they mean here, or what to write.

Of its two spellings, before 25 June 2022 (`mask_args`) and after it, both are understood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from s3prl_stream.arguments import whole_number
from s3prl_stream.errors import UsageError

Arguments: TypeAlias = dict[str, Any]
Translate: TypeAlias = Callable[[Arguments], Arguments]
"""What was given -> the same with our names. What does not concern it stays."""

_NO_TOOLS = "objects are not shared under names here; give it itself: "
_IN_A_BATCH = "in a batch, lengths come with their tensors under the same name and _len"

TOKENIZE_REFUSED = {
    "tokenizer_name": f"{_NO_TOOLS}tokenizer=, or train_tokenizer=True",
    "generate": "write train_tokenizer=True, or give tokenizer=",
    "vocab_file": "give tokenizer=load_tokenizer(...), or CharacterTokenizer(...) of its lines",
    "text_file": "give tokenizer=CharacterTokenizer.from_texts(lines of the file)",
    "slots_file": "give tokenizer=SlotTokenizer(...) and tags=",
}
PHONEMIZE_REFUSED = {"tokenizer_name": f"{_NO_TOOLS}tokenizer=", "g2p_name": f"{_NO_TOOLS}lexicon="}
CATEGORY_REFUSED = {"category_encoder_name": f"{_NO_TOOLS}categories="}
CROP_REFUSED = {
    "crop_name": "the crop takes the place of the waveform and has its name (wav_name); .select() gives it another one"
}
NORM_REFUSED = {
    "norm_wav_name": "what comes out has the name of what came in (wav_name); .select() gives it another one"
}
NOISE_REFUSED = {
    **dict.fromkeys(
        ("noise_proportion", "noise_args", "input_feat_name", "output_feat_name"),
        "this stage adds noise to waveforms; noise on features is .mask(noise_prob=...)",
    ),
    "noise_paths": "give noise=NoiseBank(folder), which opens them once",
    "repeat": "a stretch of a NoiseBank that is too short goes on at its beginning",
}
TAGS_REFUSED = {"tag_len_name": _IN_A_BATCH, "all_category_name": "all labels are in categories= of columns='all'"}
SHIFT_REFUSED = {"source_feat_len_name": _IN_A_BATCH}
MASK_REFUSED = {
    "position_encoding_size": "position encodings are made by the network, of its hidden_size",
    "pos_enc_name": "position encodings are made by the network; no sample carries any",
    "attn_mask_name": f"networks take lengths in place of attention masks; {_IN_A_BATCH}",
}
_WINDOWS = (
    'windows have 25 ms and begin every 10 ms; what is made of them is a kind=: "logmel80" (of 201 frequencies), '
    '"linear201", "fbank80", "fbank80_povey" or "mfcc13"'
)
_KALDI = 'kind="fbank80_povey" or "mfcc13" are Kaldi\'s with its own window, "fbank80" is with Hamming\'s'
FEATURES_REFUSED = {
    **dict.fromkeys(
        ("win_ms", "hop_ms", "frame_length", "frame_shift", "n_freq", "n_mels", "n_mfcc", "feat_type", "feat_dim"),
        _WINDOWS,
    ),
    **dict.fromkeys(("input", "target"), "a stage makes one kind=; .features(..., feat_name=) again makes another"),
    "audio_config": _WINDOWS,
    "kaldi": _KALDI,
    "delta": "deltas= is how many orders of slopes are appended, over 5 frames",
    "decode_wav": "waveforms come from LoadAudio",
}
"""Of its four extracters: ExtractOnlineFeat, ExtractKaldiFeat, ExtractApcFeat, ExtractNpcFeat."""

_CONSECUTIVE = {"mask_consecutive_min": 7, "mask_consecutive_max": 7}
_BUCKET_RATIO = 1.5
_BASIC_VOCABULARY = {"coverage": 1.0, "sort_vocab": True}
_SUBWORDS = {"character_coverage": 1.0}
_SPECIAL_IDS = 3


def mask_arguments(given: Arguments) -> Arguments:
    """Of `MaskedReconstruction`: mask_args, mask_consecutive_min and _max, mask_bucket_ratio, and names of features."""
    given = _opened(given, "mask_args", "MaskedReconstruction")
    if any(name in given for name in _CONSECUTIVE):
        shortest, longest = (given.pop(name, default) for name, default in _CONSECUTIVE.items())
        if shortest != longest:
            raise UsageError(
                f"MaskedReconstruction: mask_consecutive_min={shortest!r} and mask_consecutive_max={longest!r} (7 if "
                "not given) differ; spans have one length here, span_frames="
            )
        if given.setdefault("span_frames", shortest) != shortest:
            raise UsageError(
                "MaskedReconstruction: mask_consecutive_min is another name of span_frames; give one of them"
            )
    ratio = given.pop("mask_bucket_ratio", _BUCKET_RATIO)
    if ratio != _BUCKET_RATIO:
        raise UsageError(
            f"MaskedReconstruction: mask_bucket_ratio={ratio!r}; spans that do not overlap (overlap=False) begin at "
            f"multiples of {_BUCKET_RATIO} span lengths"
        )
    return _names_of_features(given)


def _names_of_features(given: Arguments) -> Arguments:
    """Since S3PRL has masked_feat_name, source_feat_name is what is taken; before, it was also what was masked."""
    if "masked_feat_name" not in given:
        return given
    masked, source = given.pop("masked_feat_name"), given.pop("source_feat_name", None)
    target = given.pop("target_feat_name", source)
    if target != source:
        raise UsageError(
            f"MaskedReconstruction: target_feat_name={target!r}: the features that come in stay as the target, under "
            f"their own name; leave it out, or give it that name (source_feat_name={source!r})"
        )
    return {**given, "source_feat_name": masked, **({} if source is None else {"target_feat_name": source})}


def norm_arguments(given: Arguments) -> Arguments:
    """Of `NormWav`: a target_level of 0 has a meaning of its own in S3PRL."""
    if given.get("target_level") == 0:
        raise UsageError(
            "NormWav: target_level=0 of S3PRL leaves waveforms as they are: leave out this stage. (An RMS of full "
            "scale is target_db=0.)"
        )
    return given


def vocabulary_arguments(given: Arguments) -> Arguments:
    """Of `EncodeText`: vocab_args, which S3PRL's GenerateTokenizer has."""
    if "vocab_args" not in given:
        return given
    rest = dict(given)
    vocab = _dict_of_arguments("EncodeText", "vocab_args", rest.pop("vocab_args"))
    subwords = rest.get("vocab_type", "character") in ("subword", "bpe")
    size = vocab.pop("vocab_size", None)
    understood = _SUBWORDS if subwords else _BASIC_VOCABULARY
    for name, value in vocab.items():
        if name not in understood or value != understood[name]:
            raise UsageError(
                f"EncodeText: vocab_args: {name}={value!r} has no meaning here; vocab_size= is what can be set. All "
                "characters are covered, words and characters are sorted, and the trained tokenizer is at "
                '.stage("tokenize").tokenizer, which has save(path).'
            )
    if size is None or (size == -1 and not subwords):  # -1: all of them
        return rest
    if "vocab_size" in rest:
        raise UsageError("EncodeText: vocab_args has another vocab_size; give one of them")
    # S3PRL counts the special ids of subwords, and not those of characters and words
    if not subwords:
        size = whole_number("EncodeText", "vocab_args: vocab_size", size, least=1) + _SPECIAL_IDS
    return {**rest, "vocab_size": size}


def _opened(given: Arguments, name: str, stage: str) -> Arguments:
    """The arguments with those that are in the dict called `name`."""
    rest = dict(given)
    inside = _dict_of_arguments(stage, name, rest.pop(name, None))
    twice = [key for key in inside if key in rest]
    if twice:
        raise UsageError(f"{stage}: {', '.join(twice)} is in {name} and beside it; give one of them")
    return {**rest, **inside}


def _dict_of_arguments(stage: str, name: str, given: Any) -> Arguments:
    if not isinstance(given, Mapping | None):
        raise UsageError(f"{stage}: {name}={given!r} is no dict of arguments")
    return dict(given or {})
