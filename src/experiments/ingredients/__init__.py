"""What a config chooses from: one module per group of `conf/`, one class per kind of option."""
