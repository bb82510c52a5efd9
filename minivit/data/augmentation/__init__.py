"""Random transforms of training photos, each equal to torchvision's bit by bit."""
