"""Wandering values that are pure functions of a seed and a time step.

Any process can compute the value at any step without the steps before it, so that venues which
run in processes of their own share one price. Integers only: the same on every machine.
"""

from __future__ import annotations

from math import isqrt

_MASK = (1 << 64) - 1


def mix(*parts: int) -> int:
    """A 64-bit hash of integers (the finalizer of SplitMix64 over a running sum)."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = (value + (part & _MASK) * 0xD1342543DE82EF95 + 0x9E3779B97F4A7C15) & _MASK
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
        value ^= value >> 31
    return value


class Noise:
    """Sum of interpolated random lattices with periods of 2**k steps.

    Parameters
    ----------
    key : what tells this noise from others
    shortest, longest : exponents k of the first and last period
    amplitude : of the lattice with period 1; one with period 2**k has ``amplitude * 2**(k/2)``,
        as a random walk has
    """

    __slots__ = ("_lattices", "_step", "_value")

    def __init__(self, key: int, shortest: int, longest: int, amplitude: int) -> None:
        # k, key, amplitude, cell that the two ends belong to, ends
        self._lattices = [
            [k, mix(key, k), isqrt(amplitude * amplitude << k), -1, 0, 0]
            for k in range(shortest, longest + 1)
        ]
        self._step = -1
        self._value = 0

    def at(self, step: int) -> int:
        """Value at a step, in units of the amplitude."""
        if step == self._step:
            return self._value
        total = 0
        for lattice in self._lattices:
            k, key, amplitude, cell, left, right = lattice
            now = step >> k
            if now != cell:
                left, right = (
                    mix(key, end) % (2 * amplitude + 1) - amplitude for end in (now, now + 1)
                )
                lattice[3:] = now, left, right
            total += left + ((right - left) * (step - (now << k)) >> k)
        self._step, self._value = step, total
        return total
