"""What the paper names: datasets, architectures, training methods, its regularisation parameter."""

TITLES = {"digits": "Digits", "mnist": "MNIST", "cifar10": "CIFAR-10", "restricted_imagenet": "R-ImageNet"}
ARCHITECTURES = ("small", "pool", "wresnet")
# The rows of its tables, in their order; and what the released code can train as well.
METHODS = ("Normal", "Adv", "TRADES", "IG-Norm", "IG-Norm-Sum", "Int-1-class", "Int", "Int-Adv")
OTHER_METHODS = ("Int2", "Int2-Adv", "Chen-IG-Norm", "Chen-IG-Sum-Norm")
GAMMA = 0.01  # of Int and its variants, in the released code's units; see `losses`
