"""One attack a file; each is a function attack(model, x, y, *, eps, alpha, steps, ...) -> x_adv."""
