"""Checkpoint permissions: the other projects that may use a checkpoint or fine-tuned model."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from openai.types.fine_tuning.checkpoints import PermissionDeleteResponse, PermissionListResponse
from pydantic import Field, StringConstraints

from emojitune.server.context import Context
from emojitune.server.http.json_bodies import StrictModel, json_body
from emojitune.server.http.json_responses import json_response, page_response
from emojitune.server.http.query_params import After, FullOrder, Limit
from emojitune.store.permissions import Permission

# `path`, because a model's name may contain a slash; colons may be percent-encoded.
router = APIRouter(prefix="/v1/fine_tuning/checkpoints/{model:path}/permissions")

_ProjectId = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class GrantPermissions(StrictModel):
    """The body of `POST /fine_tuning/checkpoints/{model}/permissions`."""

    project_ids: list[_ProjectId] = Field(
        min_length=1, max_length=1000, description="The projects that may use the checkpoint."
    )


@router.post("")
def create(
    model: str,
    body: Annotated[GrantPermissions, Depends(json_body(GrantPermissions))],
    context: Context,
) -> Response:
    """Let projects use a checkpoint; returns the list of their permissions.

    The checkpoint is among their models: they can chat with it and fine-tune it further, but
    neither delete nor share it.
    """
    name = context.stores.models.get_own(model).name
    return _permission_page(
        context.stores.permissions.grant(name, body.project_ids), has_more=False
    )


@router.get("")
def list_permissions(
    model: str,
    context: Context,
    project_id: Annotated[str | None, Query(description="Only the permission of this project.")] = (
        None
    ),
    after: After = None,
    limit: Limit = 10,
    order: FullOrder = "descending",
) -> Response:
    """List a checkpoint's permissions."""
    page = context.stores.permissions.list(
        context.stores.models.get_own(model).name,
        project_id,
        after,
        limit,
        "asc" if order == "ascending" else "desc",
    )
    return _permission_page(page.items, has_more=page.has_more)


@router.delete("/{permission_id}")
def delete(model: str, permission_id: str, context: Context) -> Response:
    """Revoke a permission."""
    context.stores.permissions.revoke(context.stores.models.get_own(model).name, permission_id)
    return json_response(
        PermissionDeleteResponse(id=permission_id, object="checkpoint.permission", deleted=True)
    )


def _permission_page(permissions: Sequence[Permission], *, has_more: bool) -> Response:
    objects = [_permission_object(permission) for permission in permissions]
    return page_response(objects, has_more=has_more, empty_id=None)


def _permission_object(permission: Permission) -> PermissionListResponse:
    return PermissionListResponse(
        id=permission.id,
        object="checkpoint.permission",
        created_at=permission.created_at,
        project_id=permission.project_id,
    )
