# SPDX-License-Identifier: MIT
"""Balance a pole on a cart: reinforcement learning where the world itself is compiled with the agent.

    python examples/policy_gradient.py          # seconds; --steps 5 for a glance

A cart on a track is pushed left or right with 10 N, 50 times a second, and should keep the pole on it upright. An
episode ends when the pole leans more than 12 degrees, the cart is more than 2.4 m from the middle, or after 500 steps;
each step is worth 1. It is the CartPole-v1 of Gymnasium; a mean return of 475 counts as solved.

The physics is NumPy. `vmap` runs many worlds at once, `scan` runs them through time, and one `jit` holds a whole
training step: 500 steps of 64 worlds, the returns, the policy gradient, the optimizer. The method is REINFORCE with a
learned baseline:  grad = E[ sum_t grad log pi(a_t | s_t) (R_t - V(s_t)) ],  V fitted to the discounted returns R_t.

It prints the mean return of new episodes under the most probable actions; out/policy_gradient/ gets the learning
curve and an episode.

References
  cart-pole   A. Barto, R. Sutton, C. Anderson, IEEE Trans. Systems, Man, and Cybernetics 13 (1983)
  REINFORCE   R. Williams, Machine Learning 8 (1992)
  baseline    R. Sutton, A. Barto, "Reinforcement learning", 2nd ed. (2018), section 13.4
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import lax, nn, optim, train

N_STEPS = 500  # of an episode
SOLVED = 475.0
GRAVITY, CART, POLE, HALF_LENGTH = 9.8, 1.0, 0.1, 0.5  # m/s^2, kg, kg, m
FORCE, TICK = 10.0, 0.02  # N, s
MOST_X, MOST_ANGLE = 2.4, np.deg2rad(12.0)  # m, radians


class World(NamedTuple):
    """Cart and pole: position (m), speed (m/s), angle from upright (radians), its rate (radians/s). Each float64 []."""

    x: np.ndarray
    speed: np.ndarray
    angle: np.ndarray
    rate: np.ndarray


def reset(key):
    """A world almost at rest."""
    return World(*fl.random.uniform(key, (4,), np.float64, -0.05, 0.05))


def move(world, action):
    """The world 20 ms later; action 0 pushes left, 1 right."""
    push = np.where(action == 1, FORCE, -FORCE)
    sin, cos, mass = np.sin(world.angle), np.cos(world.angle), CART + POLE
    reaction = (push + POLE * HALF_LENGTH * world.rate**2 * sin) / mass
    turn = (GRAVITY * sin - cos * reaction) / (HALF_LENGTH * (4 / 3 - POLE * cos**2 / mass))
    thrust = reaction - POLE * HALF_LENGTH * turn * cos / mass
    return World(
        world.x + TICK * world.speed,
        world.speed + TICK * thrust,
        world.angle + TICK * world.rate,
        world.rate + TICK * turn,
    )


def has_failed(world):
    return (np.abs(world.x) > MOST_X) | (np.abs(world.angle) > MOST_ANGLE)


class Agent(nn.Module):
    """observation [..., 4] -> logits of the actions [..., 2], and value of the state [...]."""

    policy: nn.MLP
    critic: nn.MLP

    def __init__(self, width, *, key):
        key_policy, key_critic = fl.random.split(key)
        self.policy = nn.MLP((4, width, width, 2), activation=nn.tanh, key=key_policy)
        self.critic = nn.MLP((4, width, width, 1), activation=nn.tanh, key=key_critic)

    def __call__(self, observation):
        return self.policy(observation), self.critic(observation)[..., 0]


def observe(world):
    return np.stack(world, axis=-1).astype(np.float32)


class Episode(NamedTuple):
    """What happened, [time, ...]: observation [4], action int, alive: 1 while the episode goes on, then 0."""

    observation: np.ndarray
    action: np.ndarray
    alive: np.ndarray


def play(agent, key, explore):
    """One episode, N_STEPS long; after a failure the world goes on, but `alive` is 0."""
    key_world, key_actions = fl.random.split(key)
    world = reset(key_world)
    noise = fl.random.gumbel(key_actions, (N_STEPS, 2), np.float32) if explore else np.zeros((N_STEPS, 2), np.float32)

    def step(carry, noise):
        world, alive = carry
        observation = observe(world)
        action = np.argmax(agent.policy(observation) + noise, -1)
        world = move(world, action)
        seen = Episode(observation, action, alive)
        return (world, alive * (1 - has_failed(world).astype(np.float32))), seen

    return lax.scan(step, (world, np.float32(1.0)), noise)[1]


def returns(alive, discount):
    """R_t = r_t + discount R_{t+1} with reward `alive` [time]; [time]."""

    def back(following, reward):
        total = reward + discount * following
        return total, total

    return lax.scan(back, np.zeros_like(alive[0]), alive, reverse=True)[1]


def loss_fn(agent, episodes, target):
    """Policy and value loss on episodes [worlds, time, ...]; both are means over the steps that were lived."""
    logits, value = agent(episodes.observation)
    n_alive = np.sum(episodes.alive)
    error = (target - value) * episodes.alive
    advantage = fl.stop_gradient(error)
    deviation = np.sqrt(np.sum(advantage**2) / n_alive)
    log_probability = nn.log_softmax(logits)
    chosen = np.take_along_axis(log_probability, episodes.action[..., None], -1)[..., 0]
    policy_loss = -np.sum(chosen * advantage / (deviation + 1e-6)) / n_alive
    return policy_loss + 0.5 * np.sum(error**2) / n_alive


class State(NamedTuple):
    """What training changes."""

    agent: Agent
    opt_state: Any


def make_train_step(opt, n_worlds, discount):
    """A step of training on new episodes; a batch is the random key to play them with."""

    @fl.jit
    def train_step(state, key):
        keys = fl.random.split(key, n_worlds)
        episodes = fl.vmap(lambda key: play(state.agent, key, explore=True))(keys)
        target = fl.vmap(lambda alive: returns(alive, np.float32(discount)))(episodes.alive)
        target = target * np.float32(1 - discount)  # so that values are of the order of one
        grads = fl.grad(loss_fn)(state.agent, episodes, target)
        state = State(*opt.step(state.agent, grads, state.opt_state))
        return state, {"return": np.mean(np.sum(episodes.alive, -1))}

    return train_step


@fl.jit
def evaluate(agent, keys):
    """Episodes [len(keys), time, ...] under the most probable actions."""
    return fl.vmap(lambda key: play(agent, key, explore=False))(keys)


def to_host(x):
    return x.get() if hasattr(x, "get") else np.asarray(x)  # a CuPy array comes to the host by .get()


def plot(folder, history, episodes):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    train.plot_curves(folder / "return.png", {"mean return of a batch of episodes": history["return"]})
    figure = Figure(figsize=(8, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    seconds = TICK * np.arange(N_STEPS)
    axes.plot(seconds, np.rad2deg(episodes.observation[:, :, 2].T), linewidth=0.5)
    axes.axhspan(-12, 12, alpha=0.1)
    axes.set(title="Angle of the pole in new episodes", xlabel="s", ylabel="degrees", ylim=(-15, 15))
    figure.savefig(folder / "episodes.png", dpi=100)
    print(f"pictures: {folder / 'return.png'}, {folder / 'episodes.png'}")


def arguments(argv):
    parser = argparse.ArgumentParser(description="Policy gradient on the cart-pole.")
    parser.add_argument("--steps", type=int, default=300, help="training steps, each a batch of episodes")
    parser.add_argument("--worlds", type=int, default=64, help="episodes of a step")
    parser.add_argument("--width", type=int, default=32, help="units of each of the two hidden layers")
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--discount", type=float, default=0.98, help="of rewards, a step of 20 ms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True, help="write the pictures")
    parser.add_argument("--out", type=Path, default=Path("out/policy_gradient"), help="folder of the pictures")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu (needs CuPy)")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    key_agent, key_train, key_test = fl.random.split(fl.random.key(args.seed), 3)
    agent, key_train, key_test = fl.tree.map(
        lambda leaf: fl.numpy.asarray(leaf, device=args.device),
        (Agent(args.width, key=key_agent), key_train, key_test),
    )
    opt = optim.chain(optim.clip_by_global_norm(0.5), optim.adam(optim.linear(args.learning_rate, 0.0, args.steps)))
    start = time.perf_counter()
    keys = (fl.random.fold_in(key_train, i) for i in range(args.steps))
    step, state = make_train_step(opt, args.worlds, args.discount), State(agent, opt.init(agent))
    agent_state, history, _ = train.fit(step, state, keys, steps=args.steps, title="policy gradient")
    seconds = time.perf_counter() - start

    episodes = fl.tree.map(to_host, evaluate(agent_state.agent, fl.random.split(key_test, 100)))
    lengths = episodes.alive.sum(-1)
    print(f"{args.steps} steps, {args.steps * args.worlds} episodes in {seconds:.0f} s")
    print(f"mean return {lengths.mean():.1f} of {N_STEPS} in 100 new episodes, worst {lengths.min():.0f}")
    solved = next((i for i, mean in history["return"] if mean >= SOLVED), None)
    if solved:
        print(f"first batch with a mean return of {SOLVED:.0f}: step {solved}")
    if args.plot:
        plot(args.out, history, episodes)
    return float(lengths.mean())


if __name__ == "__main__":
    main()
