from moorage import HostedAgent, text_of


def hello(items, ctx):
    yield "Hello"
    for word in (text_of(items) or "world").split()[:20]:
        yield f" {word}"
    yield "!"


HostedAgent(agent=hello).serve()
