"""How many examples a property test tries: a quarter, or all with --hypothesis-profile=deep."""

from hypothesis import settings

DEFAULT = 100  # of Hypothesis, where a test says nothing


def register_profiles(derandomize: bool) -> None:
    """Register the profiles `fast`, which is loaded, and `deep`.

    No deadline: a busy machine is no failure. derandomize: try the same examples every time.
    """
    for name, count in (("fast", DEFAULT // 4), ("deep", DEFAULT)):
        settings.register_profile(name, max_examples=count, deadline=None, derandomize=derandomize)
    settings.load_profile("fast")


def examples(count: int) -> settings:
    """Return the settings of a test that tries `count` examples in the profile `deep`."""
    return settings(max_examples=max(1, count * settings.default.max_examples // DEFAULT))
