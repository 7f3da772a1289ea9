"""What `kubectl kustomize` makes of deploy/, for machines without it: the part of kustomize that is used there.

A field of a kustomization that is not known here is an error, and so is a patch without its target or its path. Where
kubectl is installed a test holds the result against it. https://kubectl.docs.kubernetes.io/references/kustomize/
"""

import hashlib
import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

Object = dict[str, Any]

FIELDS: Final = frozenset(
    {"apiVersion", "kind", "namespace", "resources", "components", "images", "configMapGenerator", "patches"}
)
_LETTERS: Final = str.maketrans("013ae", "ghkmt")
_HASH_CHARS: Final = 10


class CannotComposeError(Exception):
    """Files that do not fit together."""


def composed(folder: Path) -> list[Object]:
    """The objects of an overlay, as they would be applied."""
    objects = _accumulated(folder)
    for one in [one for one in objects if one["kind"] == "ConfigMap"]:
        named = one["metadata"]["name"] + "-" + _hash(one)
        for other in objects:
            _renamed(other, one["metadata"]["name"], named)
        one["metadata"]["name"] = named
    return objects


def _accumulated(folder: Path) -> list[Object]:
    """The objects of one kustomization and of all that it stands on, before their names are final."""
    told = _kustomization(folder)
    objects: list[Object] = []
    for name in told.get("resources", []):
        place = folder / name
        objects += _accumulated(place) if place.is_dir() else documents(place)
    for name in told.get("components", []):
        _apply(_kustomization(folder / name), folder / name, objects)
    _apply({**told, "resources": []}, folder, objects)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    if len(set(names)) < len(names):
        raise CannotComposeError(f"{folder}: the same object twice: {sorted(names)}")
    return objects


def _apply(told: Object, folder: Path, objects: list[Object]) -> None:
    """What one kustomization adds to objects and changes of them."""
    for name in told.get("resources", []):
        objects += documents(folder / name)
    for made in told.get("configMapGenerator", []):
        _generate(made, objects)
    for patch in told.get("patches", []):
        _patch(patch, objects)
    for image in told.get("images", []):
        _image(image, objects)
    if "namespace" in told:
        for one in objects:
            if one["kind"] != "Namespace":
                one["metadata"]["namespace"] = told["namespace"]


def _kustomization(folder: Path) -> Object:
    (told,) = documents(folder / "kustomization.yaml")
    strange = told.keys() - FIELDS
    if strange:
        raise CannotComposeError(f"{folder}: fields that are not known here: {sorted(strange)}")
    return told


def documents(path: Path) -> list[Object]:
    """The objects of a YAML file."""
    if not path.is_file():
        raise CannotComposeError(f"{path} is not there")
    found: list[Object] = list(YAML(typ="safe", pure=True).load_all(path))
    return found


def _generate(made: Object, objects: list[Object]) -> None:
    """A configuration map, or more values for one that is there."""
    data = dict(line.split("=", 1) for line in made["literals"])
    known = [one for one in objects if (one["kind"], one["metadata"]["name"]) == ("ConfigMap", made["name"])]
    if made.get("behavior") == "merge":
        if not known:
            raise CannotComposeError(f"no configuration map {made['name']} to merge into")
        known[0]["data"] |= data
    else:
        metadata = {"name": made["name"]}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def _patch(patch: Object, objects: list[Object]) -> None:
    """A JSON patch (RFC 6902) of every object that its target names."""
    target = patch["target"]
    hit = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (target["kind"], target["name"])]
    if not hit:
        raise CannotComposeError(f"a patch without its target: {target}")
    for one in hit:
        for step in YAML(typ="safe", pure=True).load(patch["patch"]):
            _step(one, step)


def _step(one: Object, step: Object) -> None:
    *way, last = step["path"].removeprefix("/").replace("~1", "/").replace("~0", "~").split("/")
    place: Any = one
    try:
        for name in way:
            place = place[int(name) if isinstance(place, list) else name]
        if step["op"] == "add" and isinstance(place, list):
            place.insert(len(place) if last == "-" else int(last), deepcopy(step["value"]))
        elif step["op"] == "add":
            place[last] = deepcopy(step["value"])
        elif step["op"] == "replace":
            at = int(last) if isinstance(place, list) else last
            _ = place[at]
            place[at] = deepcopy(step["value"])
        else:
            raise CannotComposeError(f"a step that is not known here: {step}")
    except (KeyError, IndexError) as error:
        raise CannotComposeError(f"a patch of what is not there: {step}") from error


def _image(image: Object, objects: list[Object]) -> None:
    """Another name and tag for an image."""
    hit = [one for made in objects for one in _containers(made) if one["image"] == image["name"]]
    if not hit:
        raise CannotComposeError(f"no container has the image {image['name']}")
    for one in hit:
        one["image"] = f"{image['newName']}:{image['newTag']}"


def _containers(one: Object) -> Iterator[Object]:
    if one["kind"] == "Deployment":
        yield from one["spec"]["template"]["spec"]["containers"]


def _renamed(value: Any, name: str, named: str) -> None:
    """Where an object names a configuration map, let it name it as it is called now."""
    if isinstance(value, dict):
        for field, part in value.items():
            if field in {"configMapRef", "configMapKeyRef", "configMap"} and part.get("name") == name:
                part["name"] = named
            _renamed(part, name, named)
    elif isinstance(value, list):
        for part in value:
            _renamed(part, name, named)


def _hash(one: Object) -> str:
    """What follows a generated name: pods start again when the values change. The name itself is not in it."""
    told = {"kind": one["kind"], "name": "", "data": one["data"]}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARS].translate(_LETTERS)
