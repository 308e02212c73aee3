"""What no attack can exceed: bounds on the loss and on the test error that poison can cause."""
