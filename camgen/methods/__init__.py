"""Map methods, a file a mechanism: what the activations say, what the gradients say, what the peer says."""
