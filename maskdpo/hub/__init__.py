"""The Hugging Face Hub: what datasets and models share."""
