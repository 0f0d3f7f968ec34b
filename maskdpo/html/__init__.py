"""What all HTML pages share: the frame, the style, and the writing of one self-contained file."""
