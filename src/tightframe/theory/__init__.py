"""What is proved: certificates, closed forms, thresholds and limits."""
