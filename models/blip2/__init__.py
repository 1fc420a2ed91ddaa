"""BLIP2-Adapter: a ViT, a Q-Former and a decoder language model joined by gated cross-attention."""
