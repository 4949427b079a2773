"""What the applications have to tell, with their pictures."""

from pathlib import Path

from pipeline import paths
from pipeline.applications.story import read_stories
from pipeline.report.content import Application, ShownPicture
from pipeline.report.files import Files


def read_applications(files: Files) -> list[Application]:
    """Every application that has run; a picture that is missing is remembered in `files`."""
    return [
        Application(
            title=story.title,
            sentence=story.sentence,
            tables=story.tables,
            pictures=[
                ShownPicture(picture, drawing.caption)
                for drawing in story.drawings
                if (picture := files.picture(Path(drawing.path), drawing.alt))
            ],
        )
        for story in read_stories(files.root / paths.APPLICATIONS)
    ]
