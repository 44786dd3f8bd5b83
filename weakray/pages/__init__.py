"""What the pages and drawings of several stages share: the look, axes, pictures inside a page. It knows no stage."""
