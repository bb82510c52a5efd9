"""What describes a model rather than a picture: how far its heads look, where attention goes, …"""
