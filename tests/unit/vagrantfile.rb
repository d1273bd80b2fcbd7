# Prints what Vagrant itself reads in a Vagrantfile, as JSON: `ruby vagrantfile.rb FOLDER`.
#
# For each provider: the forwarded ports, the box and the synced folders that a machine of it would have, and the
# provider's own settings. Of a provider whose plugin is not here, Vagrant keeps the settings unread: they are shown too.

require "json"
require "vagrant"

environment = Vagrant::Environment.new(cwd: ARGV.fetch(0), ui_class: Vagrant::UI::Silent)
vagrantfile = environment.vagrantfile
PROVIDERS = [:parallels, :vmware_desktop, :libvirt, :virtualbox, :qemu].freeze

def settings(config)
  return {} if config.nil?

  config.instance_variables.to_h do |name|
    value = config.instance_variable_get(name)
    [name.to_s.delete_prefix("@"), value.is_a?(Vagrant::Config::V2::DummyConfig) ? settings(value) : value]
  end
end

seen = PROVIDERS.to_h do |provider|
  vm = vagrantfile.config.vm
  # What the block says with `override` is read as Vagrant reads it: as further Vagrantfiles.
  loader = Vagrant::Config::Loader.new(Vagrant::Config::VERSIONS, Vagrant::Config::VERSIONS_ORDER)
  loader.set(:root, environment.root_path.join("Vagrantfile"))
  loader.set(:overrides, vm.get_provider_overrides(provider))
  config, = loader.load([:root, :overrides])
  [provider, {
    box: config.vm.box,
    ports: config.vm.networks.select { |type, _| type == :forwarded_port }.map(&:last),
    folders: config.vm.synced_folders,
    settings: settings(config.vm.get_provider_config(provider)),
  }]
end
puts JSON.generate(order: vagrantfile.config.vm.__providers, seen: seen)
