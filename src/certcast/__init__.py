"""certcast: one host renews a certificate, every nginx takes it over, proves it, serves it."""
