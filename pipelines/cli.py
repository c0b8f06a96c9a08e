"""The command `recon`. A known error ends in one line and exit code 1, wrong usage in 2."""

from collections.abc import Sequence

from lotus.command_line import Program, run

COMMANDS = {
    "multi": ("pipelines.commands.photos", "a folder of photos, or a video, to a mesh"),
    "single": ("pipelines.commands.photos", "one photo to a mesh"),
    "stream": ("pipelines.commands.stream", "posed RGB-D or RGB frames to a mesh, frame by frame"),
    "evaluate": (
        "pipelines.commands.results",
        "compare a mesh with a reference: accuracy, completeness, F-score",
    ),
    "plan": ("pipelines.commands.results", "show the steps of a pipeline and what each reads and makes"),
    "view": ("pipelines.commands.results", "look at a result in the browser"),
    "demo": ("pipelines.commands.demo", "render a scene, reconstruct it, and compare with the truth"),
}
HELP = """usage: recon COMMAND ...

Lotus Recon: photos in, mesh out.

commands:
{commands}

start here:
  recon demo out/                 a built-in scene through the whole pipeline
  recon multi photos/ out/        your own photos; then open out/report.html and out/mesh.glb
  recon multi photos/ out/ --checkpoint DIR
                                  the same with Lotus depth and normals from a checkpoint folder

`recon COMMAND --help` explains a command. An interrupted run goes on where it stopped: same command again
(not recon stream, which starts anew).
"""
AFTER_INTERRUPT = "the same command goes on where it stopped"
AFTER_INTERRUPT_OF = {
    "stream": "the same command starts with the first frame again; OUT keeps the mesh last written there",
    **dict.fromkeys(("evaluate", "plan", "view"), "nothing is lost"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits where it does not end well."""
    run(Program("recon", COMMANDS, HELP, AFTER_INTERRUPT, AFTER_INTERRUPT_OF), arguments)


if __name__ == "__main__":
    main()
