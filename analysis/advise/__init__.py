"""What would help most: more images, better labels, a wider space, or images of some classes."""
