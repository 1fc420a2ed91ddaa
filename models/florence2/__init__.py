"""Florence-2: a masked-autoencoding ViT and an encoder-decoder in which every task is text in, text out."""
