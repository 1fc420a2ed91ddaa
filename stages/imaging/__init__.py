"""Image operations shared by several stages: perceptual hashes, text detection, CLIP embeddings."""
