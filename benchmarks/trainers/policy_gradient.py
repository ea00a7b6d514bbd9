# SPDX-License-Identifier: MIT
"""examples/policy_gradient.py: a step is 64 episodes of 500 steps of the cart-pole, played and learned from, Adam.

PyTorch plays in a Python loop, as its users do; `torch.compile` compiles one step of the worlds.
"""

from typing import Any

import numpy as np

from benchmarks.trainers.common import Run, Trainer, count, example, our_run

WORLDS, TIME, WIDTH, RATE, DISCOUNT = 64, 500, 32, 1e-3, 0.98
WIDTHS = ((4, WIDTH), (WIDTH, WIDTH))


def _ours() -> Run:
    pg = example("policy_gradient")
    fl, opt = pg.fl, pg.optim.adam(RATE)
    agent = pg.Agent(WIDTH, key=fl.random.key(0))
    keys = [fl.random.key(i) for i in range(20)]
    step = pg.make_train_step(opt, WORLDS, DISCOUNT)
    return our_run(step, pg.State(agent, opt.init(agent)), keys, count(agent), figure="return")


def _jax() -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    rng = np.random.default_rng(0)
    pg = example("policy_gradient")

    def layers(n_out):
        shapes = (*WIDTHS, (WIDTH, n_out))
        return [(rng.uniform(-0.2, 0.2, s).astype(np.float32), np.zeros(s[1], np.float32)) for s in shapes]

    def mlp(params, x):
        for w, b in params[:-1]:
            x = jnp.tanh(x @ w + b)
        return x @ params[-1][0] + params[-1][1]

    def move(world, action):
        x, speed, angle, rate = world
        push = jnp.where(action == 1, pg.FORCE, -pg.FORCE)
        sin, cos, mass = jnp.sin(angle), jnp.cos(angle), pg.CART + pg.POLE
        reaction = (push + pg.POLE * pg.HALF_LENGTH * rate**2 * sin) / mass
        turn = (pg.GRAVITY * sin - cos * reaction) / (pg.HALF_LENGTH * (4 / 3 - pg.POLE * cos**2 / mass))
        thrust = reaction - pg.POLE * pg.HALF_LENGTH * turn * cos / mass
        return x + pg.TICK * speed, speed + pg.TICK * thrust, angle + pg.TICK * rate, rate + pg.TICK * turn

    def play(policy, key):
        key_world, key_actions = jax.random.split(key)
        world = tuple(jax.random.uniform(key_world, (4,), jnp.float64, -0.05, 0.05))

        def step(carry, noise):
            world, alive = carry
            observation = jnp.stack(world).astype(jnp.float32)
            action = jnp.argmax(mlp(policy, observation) + noise)
            world = move(world, action)
            failed = (jnp.abs(world[0]) > pg.MOST_X) | (jnp.abs(world[2]) > pg.MOST_ANGLE)
            return (world, alive * (1 - failed.astype(jnp.float32))), (observation, action, alive)

        noise = jax.random.gumbel(key_actions, (TIME, 2), jnp.float32)
        return jax.lax.scan(step, (world, jnp.float32(1)), noise)[1]

    def returns(alive):
        def back(following, reward):
            total = reward + jnp.float32(DISCOUNT) * following
            return total, total

        return jax.lax.scan(back, jnp.float32(0), alive, reverse=True)[1] * jnp.float32(1 - DISCOUNT)

    def loss(params, observation, action, alive, target):
        error = (target - mlp(params[1], observation)[..., 0]) * alive
        n_alive, advantage = alive.sum(), jax.lax.stop_gradient(error)
        deviation = jnp.sqrt(jnp.sum(advantage**2) / n_alive)
        logits = jax.nn.log_softmax(mlp(params[0], observation))
        chosen = jnp.take_along_axis(logits, action[..., None], -1)[..., 0]
        return -jnp.sum(chosen * advantage / (deviation + 1e-6)) / n_alive + 0.5 * jnp.sum(error**2) / n_alive

    opt = optax.adam(RATE)

    @jax.jit
    def step(params, state, key):
        key, sub = jax.random.split(key)
        observation, action, alive = jax.vmap(play, in_axes=(None, 0))(params[0], jax.random.split(sub, WORLDS))
        grads = jax.grad(loss)(params, observation, action, alive, jax.vmap(returns)(alive))
        updates, state = opt.update(grads, state)
        return optax.apply_updates(params, updates), state, key, alive.sum(-1).mean()

    params = jax.tree.map(jnp.asarray, (layers(2), layers(1)))
    held: list[Any] = [params, opt.init(params), jax.random.key(0)]

    def once():
        with jax.enable_x64(True):
            *held[:], value = step(*held)
            return float(value)

    return Run(once, sum(leaf.size for leaf in jax.tree.leaves(params)))


def _torch(compiled: bool) -> Run:
    import torch
    from torch import nn

    pg = example("policy_gradient")

    def mlp(n_out):
        hidden = [nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh()]
        return nn.Sequential(*hidden, nn.Linear(WIDTH, n_out))

    policy, critic = mlp(2), mlp(1)
    parameters = [*policy.parameters(), *critic.parameters()]
    adam = torch.optim.Adam(parameters, RATE)

    def world_step(world, noise):
        observation = world.float()
        action = (policy(observation) + noise).argmax(-1)
        x, speed, angle, rate = world.unbind(-1)
        push = torch.where(action == 1, pg.FORCE, -pg.FORCE).double()
        sin, cos, mass = angle.sin(), angle.cos(), pg.CART + pg.POLE
        reaction = (push + pg.POLE * pg.HALF_LENGTH * rate**2 * sin) / mass
        turn = (pg.GRAVITY * sin - cos * reaction) / (pg.HALF_LENGTH * (4 / 3 - pg.POLE * cos**2 / mass))
        thrust = reaction - pg.POLE * pg.HALF_LENGTH * turn * cos / mass
        moved = (x + pg.TICK * speed, speed + pg.TICK * thrust, angle + pg.TICK * rate, rate + pg.TICK * turn)
        failed = (moved[0].abs() > pg.MOST_X) | (moved[2].abs() > pg.MOST_ANGLE)
        return torch.stack(moved, -1), observation, action, 1 - failed.float()

    world_step = torch.compile(world_step) if compiled else world_step

    def play():
        world, alive = torch.rand(WORLDS, 4, dtype=torch.float64) * 0.1 - 0.05, torch.ones(WORLDS)
        noise, seen = -torch.empty(TIME, WORLDS, 2).exponential_().log(), []
        for t in range(TIME):
            world, observation, action, stands = world_step(world, noise[t])
            seen.append((observation, action, alive))
            alive = alive * stands
        return (torch.stack(parts) for parts in zip(*seen, strict=True))

    def once():
        with torch.no_grad():
            observation, action, alive = play()
            target, following = torch.empty(TIME, WORLDS), torch.zeros(WORLDS)
            for t in reversed(range(TIME)):
                following = target[t] = alive[t] + DISCOUNT * following
            target *= 1 - DISCOUNT
        error = (target - critic(observation)[..., 0]) * alive
        n_alive, advantage = alive.sum(), error.detach()
        deviation = ((advantage**2).sum() / n_alive).sqrt()
        chosen = policy(observation).log_softmax(-1).gather(-1, action[..., None])[..., 0]
        loss = -(chosen * advantage / (deviation + 1e-6)).sum() / n_alive + 0.5 * (error**2).sum() / n_alive
        adam.zero_grad()
        loss.backward()
        adam.step()
        return alive.sum(0).mean().item()

    return Run(once, sum(p.numel() for p in parameters))


TRAINER = Trainer("policy_gradient", _ours, _jax, _torch)
