"""Text and token files in, batches of a mixture out; imports neither torch nor `tokenizers`."""

from mixlaw.corpus.build import build_corpus
from mixlaw.corpus.domains import DomainSource
from mixlaw.corpus.environment import ENVIRONMENT_DOMAINS
from mixlaw.corpus.sampler import BatchSampler
from mixlaw.corpus.segments import Segments
from mixlaw.corpus.store import Corpus, load_corpus
from mixlaw.corpus.tokenizers import TokenizerSpec

__all__ = [
    "ENVIRONMENT_DOMAINS",
    "BatchSampler",
    "Corpus",
    "DomainSource",
    "Segments",
    "TokenizerSpec",
    "build_corpus",
    "load_corpus",
]
