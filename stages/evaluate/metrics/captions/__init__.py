"""Caption metrics: BLEU, ROUGE-L and CIDEr-D over PTB tokens."""
