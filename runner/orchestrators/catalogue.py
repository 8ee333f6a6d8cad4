"""Which models an endpoint serves, and the words by which tasks ask for them."""

from __future__ import annotations

from runner.orchestrators.settings import EndpointSettings


class Catalogue:
    """One endpoint's models: those of the settings, or else those that it says it serves."""

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        self._learned: tuple[str, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """Empty where nobody said which there are."""
        return self._settings.models or self._learned

    @property
    def names(self) -> list[str]:
        """All words by which tasks may ask for a model that is known."""
        labels = [label for each in self._settings.labels.values() for label in each]
        return [*self.models, *self._settings.aliases, *labels]

    @property
    def complete(self) -> bool:
        """Whether other models are refused: where the settings name all. What a server tells may lack some."""
        return bool(self._settings.models)

    def learn(self, models: tuple[str, ...]) -> bool:
        """Take over what the endpoint says that it serves. Answers whether that is new."""
        news, self._learned = models != self._learned, models
        return news

    def known(self, wanted: str) -> list[str]:
        """Its own names of the models that a word stands for: an alias, else a model's name, else a label.

        "" stands for its default, which may be any of them.
        """
        settings = self._settings
        wanted = wanted or settings.model
        if wanted in settings.aliases:
            found = [settings.aliases[wanted]]
        elif wanted in self.models:
            found = [wanted]
        else:
            found = [model for model, labels in settings.labels.items() if wanted in labels]
        if self.complete:
            # One that registered itself has the aliases and labels of its group, and may have fewer models.
            found = [model for model in found if model in settings.models]
        if not found and wanted == settings.model and not (wanted and self.complete):
            return [wanted]
        return found
