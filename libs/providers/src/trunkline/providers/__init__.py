"""What every adapter to a provider shares: errors, breakers, retries, keys, prices."""
