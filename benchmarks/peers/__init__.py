"""What AlphaPulse is measured beside, one adapter a library; none is needed to import this."""
