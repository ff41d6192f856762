"""The programs: `alphapulse` with its commands, and the three servers under names of their own."""
