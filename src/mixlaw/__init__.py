"""mixlaw: choose the data mixture of a language model before the model is trained."""

__version__ = "0.1.0"
