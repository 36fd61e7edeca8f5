from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...types import Response, UNSET
from ... import errors

from ...models.job_list import JobList
from ...models.problem import Problem
from ...models.state import check_state
from ...models.state import State
from ...types import UNSET, Unset
from typing import cast
from uuid import UUID
import datetime



def _get_kwargs(
    *,
    queue: str | Unset = UNSET,
    kind: str | Unset = UNSET,
    state: list[State] | Unset = UNSET,
    label: list[str] | Unset = UNSET,
    tenant: str | Unset = UNSET,
    created_after: datetime.datetime | Unset = UNSET,
    created_before: datetime.datetime | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    id: list[UUID] | Unset = UNSET,

) -> dict[str, Any]:
    

    

    params: dict[str, Any] = {}

    params["queue"] = queue

    params["kind"] = kind

    json_state: list[str] | Unset = UNSET
    if not isinstance(state, Unset):
        json_state = []
        for state_item_data in state:
            state_item: str = state_item_data
            json_state.append(state_item)


    params["state"] = json_state

    json_label: list[str] | Unset = UNSET
    if not isinstance(label, Unset):
        json_label = label


    params["label"] = json_label

    params["tenant"] = tenant

    json_created_after: str | Unset = UNSET
    if not isinstance(created_after, Unset):
        json_created_after = created_after.isoformat()
    params["created_after"] = json_created_after

    json_created_before: str | Unset = UNSET
    if not isinstance(created_before, Unset):
        json_created_before = created_before.isoformat()
    params["created_before"] = json_created_before

    params["cursor"] = cursor

    params["limit"] = limit

    json_id: list[str] | Unset = UNSET
    if not isinstance(id, Unset):
        json_id = []
        for id_item_data in id:
            id_item = str(id_item_data)
            json_id.append(id_item)


    params["id"] = json_id


    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}


    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/jobs",
        "params": params,
    }


    return _kwargs



def _parse_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> JobList | Problem | None:
    if response.status_code == 200:
        response_200 = JobList.from_dict(response.json())



        return response_200

    if response.status_code == 400:
        response_400 = Problem.from_dict(response.json())



        return response_400

    if response.status_code == 401:
        response_401 = Problem.from_dict(response.json())



        return response_401

    if response.status_code == 403:
        response_403 = Problem.from_dict(response.json())



        return response_403

    if response.status_code == 422:
        response_422 = Problem.from_dict(response.json())



        return response_422

    if response.status_code == 429:
        response_429 = Problem.from_dict(response.json())



        return response_429

    if response.status_code == 500:
        response_500 = Problem.from_dict(response.json())



        return response_500

    if response.status_code == 503:
        response_503 = Problem.from_dict(response.json())



        return response_503

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> Response[JobList | Problem]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient,
    queue: str | Unset = UNSET,
    kind: str | Unset = UNSET,
    state: list[State] | Unset = UNSET,
    label: list[str] | Unset = UNSET,
    tenant: str | Unset = UNSET,
    created_after: datetime.datetime | Unset = UNSET,
    created_before: datetime.datetime | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    id: list[UUID] | Unset = UNSET,

) -> Response[JobList | Problem]:
    """ Jobs that fit all that is given, newest first; or those named by id

    Args:
        queue (str | Unset):
        kind (str | Unset):
        state (list[State] | Unset):
        label (list[str] | Unset):
        tenant (str | Unset):
        created_after (datetime.datetime | Unset):
        created_before (datetime.datetime | Unset):
        cursor (str | Unset):
        limit (int | Unset): How many things a page has at most.
        id (list[UUID] | Unset): Jobs by their ids.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[JobList | Problem]
     """


    kwargs = _get_kwargs(
        queue=queue,
kind=kind,
state=state,
label=label,
tenant=tenant,
created_after=created_after,
created_before=created_before,
cursor=cursor,
limit=limit,
id=id,

    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)

def sync(
    *,
    client: AuthenticatedClient,
    queue: str | Unset = UNSET,
    kind: str | Unset = UNSET,
    state: list[State] | Unset = UNSET,
    label: list[str] | Unset = UNSET,
    tenant: str | Unset = UNSET,
    created_after: datetime.datetime | Unset = UNSET,
    created_before: datetime.datetime | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    id: list[UUID] | Unset = UNSET,

) -> JobList | Problem | None:
    """ Jobs that fit all that is given, newest first; or those named by id

    Args:
        queue (str | Unset):
        kind (str | Unset):
        state (list[State] | Unset):
        label (list[str] | Unset):
        tenant (str | Unset):
        created_after (datetime.datetime | Unset):
        created_before (datetime.datetime | Unset):
        cursor (str | Unset):
        limit (int | Unset): How many things a page has at most.
        id (list[UUID] | Unset): Jobs by their ids.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        JobList | Problem
     """


    return sync_detailed(
        client=client,
queue=queue,
kind=kind,
state=state,
label=label,
tenant=tenant,
created_after=created_after,
created_before=created_before,
cursor=cursor,
limit=limit,
id=id,

    ).parsed

async def asyncio_detailed(
    *,
    client: AuthenticatedClient,
    queue: str | Unset = UNSET,
    kind: str | Unset = UNSET,
    state: list[State] | Unset = UNSET,
    label: list[str] | Unset = UNSET,
    tenant: str | Unset = UNSET,
    created_after: datetime.datetime | Unset = UNSET,
    created_before: datetime.datetime | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    id: list[UUID] | Unset = UNSET,

) -> Response[JobList | Problem]:
    """ Jobs that fit all that is given, newest first; or those named by id

    Args:
        queue (str | Unset):
        kind (str | Unset):
        state (list[State] | Unset):
        label (list[str] | Unset):
        tenant (str | Unset):
        created_after (datetime.datetime | Unset):
        created_before (datetime.datetime | Unset):
        cursor (str | Unset):
        limit (int | Unset): How many things a page has at most.
        id (list[UUID] | Unset): Jobs by their ids.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[JobList | Problem]
     """


    kwargs = _get_kwargs(
        queue=queue,
kind=kind,
state=state,
label=label,
tenant=tenant,
created_after=created_after,
created_before=created_before,
cursor=cursor,
limit=limit,
id=id,

    )

    response = await client.get_async_httpx_client().request(
        **kwargs
    )

    return _build_response(client=client, response=response)

async def asyncio(
    *,
    client: AuthenticatedClient,
    queue: str | Unset = UNSET,
    kind: str | Unset = UNSET,
    state: list[State] | Unset = UNSET,
    label: list[str] | Unset = UNSET,
    tenant: str | Unset = UNSET,
    created_after: datetime.datetime | Unset = UNSET,
    created_before: datetime.datetime | Unset = UNSET,
    cursor: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    id: list[UUID] | Unset = UNSET,

) -> JobList | Problem | None:
    """ Jobs that fit all that is given, newest first; or those named by id

    Args:
        queue (str | Unset):
        kind (str | Unset):
        state (list[State] | Unset):
        label (list[str] | Unset):
        tenant (str | Unset):
        created_after (datetime.datetime | Unset):
        created_before (datetime.datetime | Unset):
        cursor (str | Unset):
        limit (int | Unset): How many things a page has at most.
        id (list[UUID] | Unset): Jobs by their ids.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        JobList | Problem
     """


    return (await asyncio_detailed(
        client=client,
queue=queue,
kind=kind,
state=state,
label=label,
tenant=tenant,
created_after=created_after,
created_before=created_before,
cursor=cursor,
limit=limit,
id=id,

    )).parsed
