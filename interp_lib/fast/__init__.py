"""The paper's small networks compiled for this processor, where a compiler is at hand; see `compiled` and `trunk`."""
