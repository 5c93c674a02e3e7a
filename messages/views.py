"""Views of servers and images, as the API document shows them. Unknown is null, never left out."""

from pydantic import Field

from messages.fields import Answer


class ServerImage(Answer):
    """The image that a server was made from."""

    id: str
    name: str | None
    system: str | None
    system_type: str | None = Field(alias="systemType")
    tags: list[str] | None


class RootVolume(Answer):
    """A server's system disk; a local one has no volume type, and the flavor's size."""

    volume_type: str | None = Field(alias="volumetype")
    size: int | None = Field(description="GiB")


class DataVolume(Answer):
    """A server's data disk."""

    volume_type: str | None = Field(alias="volumetype")
    id: str = Field(alias="volumeid")
    name: str | None = Field(alias="volumename")
    size: int = Field(description="GiB")


class Flavor(Answer):
    """A server's flavor, as Nova tells it with the server."""

    disk: int | None = Field(description="GiB")
    ephemeral: int | None = Field(description="GiB")
    extra_specs: dict[str, str] | None
    original_name: str | None
    ram: int | None = Field(description="MiB")
    swap: int | None = Field(description="MiB")
    vcpus: int | None


class SecurityGroup(Answer):
    """A security group, by its name."""

    name: str


class Nic(Answer):
    """An address of a server's port; a port without an address is one, too."""

    subnet_id: str | None
    subnet_name: str | None
    subnet_cidr: str | None
    network_id: str
    mac_address: str
    fixed_ip: str | None
    port_id: str = Field(alias="portid")


class Eip(Answer):
    """A floating IP of one of a server's ports."""

    id: str = Field(alias="eipid")
    ip_type: str | None = Field(alias="iptype")
    bandwidth: int | None = Field(description="Mbit/s")
    charge_mode: str | None = Field(alias="chargemode")
    address: str = Field(alias="ip_addr")


class FeeData(Answer):
    """A server's billing information, times in the billing time zone."""

    charge_type: str | None = Field(alias="chargetype")
    purchase_time: str | None = Field(alias="purchasetime")
    start_fee_time: str | None = Field(alias="startFeeTime")
    next_fee_time: str | None = Field(alias="nextFeeTime")


class Server(Answer):
    """A server."""

    region_id: str = Field(alias="regionId")
    region_id_too: str = Field(alias="regionID", description="the same as `regionId`")
    availability_zone: str | None
    name: str | None
    id: str
    status: str = Field(description="Nova's status, in lower case")
    translation: str | None = Field(description="the text of the status or of the task")
    task_state: str | None
    image: ServerImage | None
    root_volume: RootVolume
    data_volumes: list[DataVolume]
    flavor: Flavor
    security_groups: list[SecurityGroup]
    vpc_id: str | None = Field(
        alias="vpcid", description="the router that joins the server's first subnet"
    )
    vpc_name: str | None = Field(alias="vpcname")
    nics: list[Nic]
    eip: Eip | None
    key_name: str | None
    fee_data: FeeData = Field(alias="feeData")
    created: str | None
    host_id: str | None = Field(alias="hostId")
    host: str | None = Field(description="null without an admin cloud")


class ServerDetails(Server):
    """A single server, with its owner in the console."""

    keycloak_user_id: str | None = Field(alias="keyCloakUserId")
    keycloak_user_name: str | None = Field(alias="keyCloakUserName")


class ServerPage(Answer):
    """A page of servers."""

    total_count: int = Field(alias="totalCount", ge=0, description="of all that match")
    servers: list[Server]


class ShownServer(Answer):
    """One server."""

    server: ServerDetails


class ServerTags(Answer):
    """A server's tags."""

    tags: list[str]


class Image(Answer):
    """An image. `locations` and `direct_url` are null: they name the storage's insides."""

    id: str
    name: str | None
    tags: list[str] | None
    status: str | None = Field(description="as Glance writes it")
    checksum: str | None
    owner: str | None
    visibility: str | None
    size: int | None = Field(description="bytes")
    self_path: str | None = Field(alias="self")
    file: str | None
    schema_path: str | None = Field(alias="schema")
    description: str | None
    system_disk: str | None = Field(alias="systemDisk", description="GiB")
    container_format: str | None
    disk_format: str | None
    min_disk: int | None = Field(description="GiB")
    min_ram: int | None = Field(description="MiB")
    protected: bool | None
    instance_uuid: str | None
    system: str | None
    system_type: str | None = Field(alias="systemType")
    translation: str | None = Field(description="the text of the status")
    created_at: str | None
    updated_at: str | None
    locations: None
    direct_url: None


class ImagePage(Answer):
    """Images: a page of them, or all that carry a tag."""

    total_count: int = Field(alias="totalCount", ge=0, description="of all that match")
    images: list[Image]
