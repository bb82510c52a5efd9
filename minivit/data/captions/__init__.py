"""Pictures with captions: COCO, Flickr8k, a CSV file, or the built-in scenes."""
