"""Chaotic systems as generators: every one returns a `Series` whose single column is `x`.

Lyapunov exponents are given per sample step of the returned series, in nats. Those of the flows were measured once, at
the default parameters, by following a tangent vector along the trajectory; other parameters get None.
"""

from collections.abc import Callable
from math import isclose

import numpy as np
import numpy.typing as npt

from pared.data.series import Series
from pared.types import DataError

Rates = Callable[[float, float, float], tuple[float, float, float]]
Point = tuple[float, float, float]


def logistic(mu: float = 3.99, length: int = 50_000, x0: float = 0.1) -> Series:
    """Logistic map.

        x' = mu x (1 - x),    exponent = mean log |mu (1 - 2 x)| over the trajectory

    mu = 3.6, 3.7, 3.8, 3.9, 3.99: 0.18, 0.35, 0.43, 0.50, 0.64 nats per step.

    Returns: `length` values in (0, 1), the first is x0.
    Cost: 5 ms for 50,000 points.
    Raises: DataError unless 0 < mu <= 4 and 0 < x0 < 1 (elsewhere the map leaves the unit interval).
    Source: May, Nature 261 (1976) 459.
    """
    if not (0 < mu <= 4 and 0 < x0 < 1):
        raise DataError(f"logistic map: needs 0 < mu <= 4 and 0 < x0 < 1, got mu={mu:g}, x0={x0:g}")
    x = x0
    values = [x]
    for _ in range(length - 1):
        x = mu * x * (1.0 - x)
        values.append(x)
    track = np.array(values)
    slopes = np.abs(mu * (1.0 - 2.0 * track))
    exponent = float(np.log(slopes).mean()) if slopes.all() else None
    law = f"logistic map x' = mu x (1 - x), mu = {mu:g}, from x = {x0:g}"
    return _series(f"logistic-{mu:.12g}", track, 2, "values", exponent, law)


def henon(a: float = 1.4, b: float = 0.3, length: int = 50_000, start: tuple[float, float] = (0.01, 0.01)) -> Series:
    """Henon map, first coordinate.

        x' = 1 - a x^2 + y,    y' = b x

    Exponent at a = 1.4, b = 0.3: 0.419 nats per step.

    Returns: `length` values, the first is start[0].
    Cost: 10 ms for 50,000 points.
    Raises: DataError where the parameters or the start let it escape to infinity.
    Source: Henon, Communications in Mathematical Physics 50 (1976) 69.
    """
    x, y = start
    values = [x]
    for _ in range(length - 1):
        x, y = 1.0 - a * x * x + y, b * x
        values.append(x)
    exponent = 0.419 if (a, b) == (1.4, 0.3) else None
    law = f"Henon map x' = 1 - a x^2 + y, y' = b x, a = {a:g}, b = {b:g}"
    return _series("henon", np.array(values), 2, "values", exponent, law)


def rossler_rates(a: float, b: float, c: float, as_printed: bool = False) -> Rates:
    """Time derivatives of the Rossler flow: (x, y, z) -> (-(y + z), x + a y, b + z (x - c)).

    as_printed=True gives the first one as -(x + y), a misprint of the paper on junk neurons: x and y then spiral to 0
    and z goes to b / c.

    Source: Rossler, Physics Letters A 57 (1976) 397; Huang, Gu, Yang, Acta Physica Sinica 71 (2022) 160501, eq. 5.
    """

    def rates(x: float, y: float, z: float) -> Point:
        return -(y + z), x + a * y, b + z * (x - c)

    def printed(x: float, y: float, z: float) -> Point:
        return -(x + y), x + a * y, b + z * (x - c)

    return printed if as_printed else rates


def rossler(
    a: float = 0.2,
    b: float = 0.4,
    c: float = 5.7,
    start: Point = (0.0, 0.0, 0.0),
    length: int = 50_000,
    discard: int = 5_000,
    as_printed: bool = False,
) -> Series:
    """Rossler flow, first coordinate, by RK4 with step 0.001; every 10th point is kept: 0.01 time units a sample.

        dx/dt = -(y + z),    dy/dt = x + a y,    dz/dt = b + z (x - c)

    The first 5,000 samples from the origin are a transient and discarded; discard=0 is the paper to the letter.
    as_printed=True: see `rossler_rates`. Exponent at the defaults: 0.071 nats per time unit, 0.00071 per sample (a mean
    over 100,000 time units; single stretches of 50,000 samples give 0.064 to 0.081).

    Returns: `length` values of x.
    Cost: 0.7 s for 50,000 samples (550,000 steps of plain Python).
    Source: see `rossler_rates`.
    """
    states = flow(rossler_rates(a, b, c, as_printed), start, 0.001, 10, length + discard)[discard:]
    exponent = 0.00071 if (a, b, c) == (0.2, 0.4, 5.7) and not as_printed else None
    law = f"Rossler flow, a = {a:g}, b = {b:g}, c = {c:g}, x every 0.01 time units (RK4, step 0.001)"
    if as_printed:
        law += ", with the misprinted first equation dx/dt = -(x + y)"
    return _series("rossler", states[:, 0], 4, "increments", exponent, law)


def lorenz(
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8 / 3,
    start: Point = (1.0, 1.0, 1.0),
    dt: float = 0.01,
    length: int = 50_000,
    discard: int = 2_000,
) -> Series:
    """Lorenz flow, first coordinate, by RK4; every step is a sample.

        dx/dt = sigma (y - x),    dy/dt = x (rho - z) - y,    dz/dt = x y - beta z

    Exponent at the default sigma, rho, beta: 0.906 nats per time unit, 0.00906 per sample of 0.01.

    Returns: `length` values of x after `discard` samples of transient.
    Cost: 0.1 s for 50,000 points.
    Source: Lorenz, Journal of the Atmospheric Sciences 20 (1963) 130.
    """

    def rates(x: float, y: float, z: float) -> Point:
        return sigma * (y - x), x * (rho - z) - y, x * y - beta * z

    states = flow(rates, start, dt, 1, length + discard)[discard:]
    usual = (sigma, rho) == (10.0, 28.0) and isclose(beta, 8 / 3)
    law = f"Lorenz flow, sigma = {sigma:g}, rho = {rho:g}, beta = {beta:.4g}, x every {dt:g} time units (RK4)"
    return _series("lorenz", states[:, 0], 4, "increments", 0.906 * dt if usual else None, law)


def mackey_glass(
    tau: float = 17.0,
    beta: float = 0.2,
    gamma: float = 0.1,
    n: float = 10.0,
    start: float = 1.2,
    length: int = 50_000,
    discard: int = 1_000,
) -> Series:
    """Mackey-Glass delay equation, by RK4 with step 0.1; every 10th point is kept: 1 time unit a sample.

        dx/dt = beta x(t - tau) / (1 + x(t - tau)^n) - gamma x,    x(t) = start for t <= 0

    The delayed term half way between two steps is the cubic through its four neighbours, so the scheme keeps its
    fourth order (but for the corner at t = 0, long forgotten after `discard`). Exponent at the defaults: 0.0051 nats
    per time unit, which is one sample.

    Returns: `length` values of x after `discard` samples of transient.
    Cost: 0.4 s for 50,000 samples.
    Raises: DataError unless tau is a multiple of 0.1 from 0.3 on and start is positive.
    Source: Mackey and Glass, Science 197 (1977) 287.
    """
    h, every = 0.1, 10
    delay = round(tau / h)
    if delay < 3 or not isclose(delay * h, tau) or start <= 0:
        raise DataError(f"Mackey-Glass: needs tau = 0.3, 0.4, 0.5, ... and start > 0; got {tau:g} and {start:g}")
    x = start
    values = [x]
    source = [beta * x / (1.0 + x**n)] * (delay + 2)  # source[k]: the delayed term at step k - 1 (one step of margin)
    for step in range((length + discard - 1) * every):
        before, first, last, after = source[step : step + 4]
        middle = (9.0 * (first + last) - before - after) / 16.0
        k1 = first - gamma * x
        k2 = middle - gamma * (x + 0.5 * h * k1)
        k3 = middle - gamma * (x + 0.5 * h * k2)
        k4 = last - gamma * (x + h * k3)
        x += h / 6.0 * (k1 + 2.0 * (k2 + k3) + k4)
        source.append(beta * x / (1.0 + x**n))
        if (step + 1) % every == 0:
            values.append(x)
    exponent = 0.0051 if (tau, beta, gamma, n) == (17.0, 0.2, 0.1, 10.0) else None
    law = f"Mackey-Glass equation, tau = {tau:g}, beta = {beta:g}, gamma = {gamma:g}, n = {n:g}, every time unit (RK4)"
    return _series("mackey-glass", np.array(values[discard:]), 18, "increments", exponent, law)


def switching(length: int = 50_000, stay: float = 100.0, seed: int = 0) -> Series:
    """A series whose law changes without notice: three chaotic maps of the unit interval, one at a time.

        x' = 3.99 x (1 - x),    x' = 1 - 3.99 x (1 - x),    x' = 1.99 min(x, 1 - x)

    After every step another one of them takes over with probability 1 / stay, so that a law holds for `stay` steps on
    average. Two values in a row tell which law holds, but for what the first step under a new one gives.

    Returns: `length` values in (0, 1), from x = 0.3; which laws follow each other is drawn from `seed`.
    Cost: 20 ms for 50,000 points.
    Raises: DataError for a stay below 1.
    """
    if stay < 1:
        raise DataError(f"switching maps: a law holds for at least 1 step on average, got {stay:g}")
    draw = np.random.default_rng(seed)
    changes = np.where(draw.random(length) < 1 / stay, draw.integers(1, 3, length), 0)
    x, values = 0.3, [0.3]
    for law in ((draw.integers(3) + changes.cumsum()) % 3)[: length - 1].tolist():
        hump = 3.99 * x * (1.0 - x)
        x = (hump, 1.0 - hump, 1.99 * min(x, 1.0 - x))[law]
        values.append(x)
    law = f"logistic map, its mirror image and tent map in turn, each for {stay:g} steps on average"
    return _series("switching", np.array(values), 4, "values", None, law)


def flow(rates: Rates, start: Point, dt: float, every: int, length: int) -> npt.NDArray[np.float64]:
    """Integrate a three-dimensional flow by the classical Runge-Kutta scheme of order 4.

    Returns: (length, 3) states; the first is `start`, then one state after every `every` steps of `dt`.
    Cost: about 1.2 microseconds a step: plain floats, which are several times faster here than small arrays.
    Raises: nothing here; a trajectory that overflows is refused by `Series`.
    """
    x, y, z = start
    half, sixth = dt / 2, dt / 6
    states = [start]
    for _ in range(length - 1):
        for _ in range(every):
            a1, b1, c1 = rates(x, y, z)
            a2, b2, c2 = rates(x + half * a1, y + half * b1, z + half * c1)
            a3, b3, c3 = rates(x + half * a2, y + half * b2, z + half * c2)
            a4, b4, c4 = rates(x + dt * a3, y + dt * b3, z + dt * c3)
            x += sixth * (a1 + 2.0 * (a2 + a3) + a4)
            y += sixth * (b1 + 2.0 * (b2 + b3) + b4)
            z += sixth * (c1 + 2.0 * (c2 + c3) + c4)
        states.append((x, y, z))
    return np.array(states)


def _series(
    name: str, values: npt.NDArray[np.float64], window: int, predict: str, lyapunov: float | None, law: str
) -> Series:
    return Series(name, values[:, None], ("x",), window, predict, lyapunov, law)
